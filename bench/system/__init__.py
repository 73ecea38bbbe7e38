"""What runs need from the machine: files, locks, signals, threads, names of plug-ins, sources of chance."""
