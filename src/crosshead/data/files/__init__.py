"""From files to pictures: decoding, archives, checking, packing."""
