"""The Python API: one function for each thing that the client does. `import tuition` offers all of it."""

import warnings

# In a notebook, libraries that come with bars of tqdm's ask for ipywidgets, which nothing here takes. They
# are imported with the modules below.
warnings.filterwarnings("ignore", message="IProgress not found")
