"""What a replacement does to the model that it is given."""
