// Makes the local GDN's API host resolve to this machine, as DNS would for a real one.
const dns = require("dns");
const lookup = dns.lookup;
dns.lookup = (name, options, callback) =>
  name.startsWith("api-") && name.endsWith(".test")
    ? lookup.call(dns, "127.0.0.1", options, callback)
    : lookup.call(dns, name, options, callback);
