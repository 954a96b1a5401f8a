"""The Isaac Gym engine (PhysX), for Python 3.8."""
