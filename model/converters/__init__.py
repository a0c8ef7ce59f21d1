"""From official checkpoints to ours and back: tables of names, one file per source."""
