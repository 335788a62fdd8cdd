"""The `hardpath` command."""


def main() -> None:
    """Run the command."""
