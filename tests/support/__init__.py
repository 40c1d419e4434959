"""What tests share: real services, made inputs, factories, and fakes."""
