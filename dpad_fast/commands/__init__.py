"""One module per subcommand of `dpad-fast`; `dpad_fast.cli` imports the one that was typed."""
