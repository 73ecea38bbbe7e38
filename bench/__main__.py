"""`python -m bench` is the `bench` command."""

from bench.commands.main import main

if __name__ == "__main__":
    main(prog_name="bench")
