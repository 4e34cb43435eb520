-- 13.5 A string is transcoded to STRING and BYTES.
return function()
  local p = payload.new("héllo")
  check.equal(assert(p:transcode(payload.format.STRING)):data(), "héllo")
  check.equal(assert(p:transcode(payload.format.BYTES)):data(), "héllo")
  check.equal(assert(p:transcode(payload.format.JSON)):data(), '"héllo"')
end
