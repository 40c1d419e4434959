"""From one untrusted file to the image that is kept, in bounded processes."""
