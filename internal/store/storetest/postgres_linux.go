package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"database/sql"
)

// start runs a PostgreSQL server in a folder of its own, on a free port of
// 127.0.0.1. It dies with the test, however that ends, and so does what it kept:
// nothing is synced to the disk.
func start() (address string, stop func(), err error) {
	bin, err := programs()
	if err != nil {
		return "", nil, err
	}
	as, err := credential()
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "certfarm-postgres-")
	if err != nil {
		return "", nil, err
	}
	remove := func() { os.RemoveAll(dir) } // what is left over is in the folder for passing things
	server, port, err := run(bin, dir, as)
	if err != nil {
		remove()
		return "", nil, err
	}
	address = "postgres://postgres@127.0.0.1:" + port + "/postgres?sslmode=disable"
	stop = func() {
		server.Process.Signal(syscall.SIGQUIT) // immediate shutdown: nothing is to be kept
		server.Wait()                          // its status says that it was told to go
		remove()
	}
	if err := answers(address); err != nil {
		stop()
		return "", nil, err
	}
	return address, stop, nil
}

// programs is the folder with the newest server, where Debian and others put it.
func programs() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", errors.New("it is not installed")
	}
	return filepath.Dir(slices.Max(found)), nil
}

// credential is who the server runs as: it refuses to run as root.
func credential() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

func run(bin, dir string, as *syscall.Credential) (server *exec.Cmd, port string, err error) {
	if as != nil {
		if err := os.Chown(dir, int(as.Uid), int(as.Gid)); err != nil {
			return nil, "", err
		}
	}
	data := filepath.Join(dir, "data")
	command := func(name string, args ...string) *exec.Cmd {
		c := exec.Command(filepath.Join(bin, name), args...)
		c.Dir = dir
		c.SysProcAttr = &syscall.SysProcAttr{Credential: as, Pdeathsig: syscall.SIGQUIT}
		return c
	}
	out, err := command("initdb", "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync").CombinedOutput()
	if err != nil {
		return nil, "", fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	_, port, err = net.SplitHostPort(free.Addr().String())
	if err := errors.Join(err, free.Close()); err != nil {
		return nil, "", err
	}
	server = command("postgres", "-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=32MB", "-c", "max_connections=400")
	return server, port, server.Start()
}

// answers waits until the server takes connections.
func answers(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	db, err := sql.Open("pgx", address)
	if err != nil {
		return err
	}
	defer db.Close() // it was only to ask
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if err = db.PingContext(ctx); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		case <-tick.C:
		}
	}
}
