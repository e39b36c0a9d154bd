// So many free ports, one a line: all are held until all are known.
const net = require("net");
const held = [];
(function next(left) {
  if (left === 0) {
    held.forEach((server) => console.log(server.address().port));
    return held.forEach((server) => server.close());
  }
  const server = net.createServer().listen(0, "127.0.0.1", () => next(left - 1));
  held.push(server);
})(Number(process.argv[2]));
