"""How the music detector that ships came to be, and how a small separator is made: `sh jobs/shipped/separator/train.sh`."""
