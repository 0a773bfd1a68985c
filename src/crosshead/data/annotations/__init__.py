"""What a picture is marked with: objects, their masks, maps of classes."""
