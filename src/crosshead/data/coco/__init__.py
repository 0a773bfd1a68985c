"""COCO's annotations: read, checked, and the objects that come of them."""
