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
// The mixed farm (Layout.Mixed) has every sort of target once or twice in place of
// nodes of one sort:
//
//	web1 web2 ── Apache     edge ── HAProxy in front of them     SSH, SFTP
//	share ◀── iis1 iis2     a certificate store, polled          SMB, or a folder
//	vault ◀── app1 app2     a Key Vault, polled                  HTTP, in this process
//
// Its invariants: everything listens on 127.0.0.1 and keeps its port for its
// whole life; nothing runs a program of the machine, but for the real servers of a
// mixed farm, each with a configuration, a folder and a process group of its own; a
// fault is only what is seen from outside, so the controller under test cannot know
// of it; and Close waits for every goroutine and process that Start began.
package lab
