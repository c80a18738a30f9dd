"""What a model and a dictionary do: functions over tensors that return small named results."""
