"""`python -m client`, which is how launchers of several processes start `client`."""

from client.cli.main import main

if __name__ == "__main__":
    main()
