"""Why: what each patch has to do with what a student says of a slide, as pictures, tables and QuPath objects."""
