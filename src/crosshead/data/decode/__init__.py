"""From files and archives to pictures, safely."""
