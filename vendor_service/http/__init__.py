"""All that speaks HTTP: routes, bodies, and the errors that answer them."""
