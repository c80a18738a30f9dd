"""Between us and the packages whose forms we read and write: `ours.py` runs where saelab is;
`readers.py` and `savers.py` import nothing of it and run where one of the packages is."""
