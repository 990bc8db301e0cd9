"""i-PI XML templates, one runnable protocol each."""
