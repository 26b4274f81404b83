foreach(file changes changes_damage)
  pados_test(engine ${file} pados_changes)
endforeach()
