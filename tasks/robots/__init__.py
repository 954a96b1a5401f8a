"""The tasks on physics engines; what several share is in locomotion.py, flight.py, in_hand.py and osc.py."""
