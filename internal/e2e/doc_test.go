// Package e2e proves the farm transaction against real servers: nginx, Apache,
// HAProxy, OpenSSH with an unprivileged login and sudo, PostgreSQL, and Pebble; and
// the ways to prove names against lighttpd, Caddy, BIND, Knot, PowerDNS and step-ca
// as well. It holds tests only.
//
// What a test says is seen by the test's own handshakes to each node's address;
// what the controller says is checked against that, never taken for it. All
// addresses are 127.77.x.y, or 10.77.0.x in a network of the test's own where names
// are proven on the ports of the internet. All files lie in one folder for each farm,
// which is gone when the test ends, with every process that was started from it.
package e2e
