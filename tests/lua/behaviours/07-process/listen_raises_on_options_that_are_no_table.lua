-- 4 Wrong argument types on core functions are raised; 7.3 the options of `process.listen` are a table.
return function()
  local topic = check.unique("topic")
  check.raises(process.listen, "bad argument #2 to 'listen' %(table expected, got number%)", topic, 5)
  process.listen(topic)
  check.raises(process.listen, "bad argument #2 to 'listen' %(table expected, got boolean%)", topic, true)
end
