"""What a base model's inside says of the tax before anything is trained."""
