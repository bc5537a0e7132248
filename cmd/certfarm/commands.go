package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"go.yaml.in/yaml/v4"
)

// commands reads what farm.yaml may have the controller run, by name: a file of
// YAML, name: [program, word, …]. Whoever may change it may run programs as the
// controller, so it must be writable by nobody else. Without a name, the file in
// the state folder is read if there is one.
func (a *app) commands(file string) (map[string][]string, error) {
	optional := file == ""
	if optional {
		file = filepath.Join(a.state, "commands.yaml")
	}
	info, err := os.Stat(file)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("commands: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0 {
		return nil, hinted(fmt.Errorf("commands: others may write %s", file), "chmod go-w "+file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("commands: %w", err)
	}
	var all map[string][]string
	if err := yaml.Unmarshal(text, &all); err != nil {
		return nil, hinted(fmt.Errorf("commands: %s: %w", file, err), "write NAME: [/full/path, word, …]")
	}
	for name, argv := range all {
		if len(argv) == 0 || !filepath.IsAbs(argv[0]) {
			return nil, hinted(fmt.Errorf("commands: %s: %s does not begin with the full path of a program", file, name), "write "+name+": [/full/path, word, …]")
		}
	}
	return all, nil
}
