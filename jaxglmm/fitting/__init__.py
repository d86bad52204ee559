"""One model fitted: engines, what they found, and what every question builds on."""
