"""From a picture to a tensor: augmentation, views, mixing."""
