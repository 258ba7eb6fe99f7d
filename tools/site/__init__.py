"""The site of the documents: pages made from the code, MkDocs's hooks, and the check of the result."""
