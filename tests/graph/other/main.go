// Command other stands for a changed agent: what it does is of no interest, only
// that its bytes are not those of the shipped one.
package main

import "fmt"

func main() {
	fmt.Println("this is not the agent that ships")
}
