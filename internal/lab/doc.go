// Package lab is a whole web farm in one process, to see Certfarm work and to
// rehearse what goes wrong: a name server, a round-robin balancer, and nodes
// that each have an SSH and SFTP server, a page over HTTP, and an HTTPS server
// that reads its files only when it is told to, as nginx does.
//
//	        DNS: names of the site → 127.0.0.1
//	                    │
//	CA, clients ──→ Balancer ── /.well-known/acme-challenge/ ──→ controller
//	                    │ round robin
//	        ┌───────────┼───────────┐
//	      web1        web2        web3      ←── SSH, SFTP ── controller
//
// Its invariants: everything listens on 127.0.0.1 and keeps its port for its
// whole life; nothing runs a program of the machine; a fault is only what is
// seen from outside, so the controller under test cannot know of it; and Close
// waits for every goroutine that Start began.
package lab
