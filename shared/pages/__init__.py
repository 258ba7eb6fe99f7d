"""What do all pages share? Safe texts; and one table, one form, one meter and one chart, with their looks.

The macros are in `templates/components.html`, and colours, type and looks in `assets/components.css`. A page
that is served loads the assets; one that travels alone inlines them. `components.js` sorts and pages tables:
without it all rows are there.
"""
