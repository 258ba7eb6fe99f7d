"""Bodies of requests and of answers: how much of them, and for how long, before anything looks at them."""
