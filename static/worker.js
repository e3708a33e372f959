// Starts the tab's node. The page speaks only after the node has said that it is ready.
import init from '/node.js';

init();
