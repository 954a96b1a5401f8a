"""What a method is: pure functions of tensors, and the data that puts them together."""
