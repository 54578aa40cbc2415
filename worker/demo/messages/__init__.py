"""The messages of the demo, as producers send them. Their times are set when they are sent."""
