"""What the pages show, as files: tables, figures, a feature, a run as a folder, a report. Nothing
that is written loads anything from elsewhere."""
