"""The Genomic Data Commons: a project's slides, expression and clinical fields → files, tables and a cohort."""
