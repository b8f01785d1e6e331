"""`python -m predilect`: the command line; launchers take it as a module (`accelerate launch -m predilect`)."""

from predilect.cli import main

if __name__ == "__main__":  # doctest and documentation tools import every module
    main()
