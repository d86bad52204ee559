"""Where and how compiled programs run: precision, compiling, programs kept, devices."""
