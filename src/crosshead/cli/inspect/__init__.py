"""What the commands that look into heads share."""
