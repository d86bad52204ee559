"""Tables and checks of many fits."""
