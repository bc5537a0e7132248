// Command certfarm keeps every TLS certificate of a load-balanced web farm in step.
package main

func main() {}
