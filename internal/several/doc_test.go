package several
