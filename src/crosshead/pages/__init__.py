"""What a person opens in a browser: templates, scripts, styles."""
