package search;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.StatementSet;
import org.apache.flink.table.api.TableEnvironment;

/** Runs a script of Flink SQL in this process until it is stopped: a Flink cluster of one. All its INSERTs are one job. */
public final class RunSql {
    /** What Flink's own SQL client reads, and {@code executeSql} does not. */
    private static final Pattern SETTING = Pattern.compile("SET\\s+'([^']+)'\\s*=\\s*'([^']*)'");

    private RunSql() {}

    /** Arguments: the script, and what stands for its {@code ${NAME}}s, each as {@code NAME=value}. */
    public static void main(String[] arguments) throws Exception {
        String script = Files.readString(Path.of(arguments[0]));
        for (int n = 1; n < arguments.length; n++) {
            String[] value = arguments[n].split("=", 2);
            script = script.replace("${" + value[0] + "}", value[1]);
        }
        TableEnvironment tables = TableEnvironment.create(
            EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(small()).build());
        StatementSet inserts = tables.createStatementSet();
        for (String statement : script.replaceAll("(?m)^\\s*--.*$", "").split(";")) {
            String sql = statement.strip();
            Matcher setting = SETTING.matcher(sql);
            if (setting.matches()) {
                tables.getConfig().set(setting.group(1), setting.group(2));
            } else if (sql.startsWith("INSERT")) {
                inserts.addInsertSql(sql);
            } else if (!sql.isEmpty()) {
                tables.executeSql(sql);
            }
        }
        inserts.execute().await();
    }

    /** Memory for a few thousand rows of state, on a machine with two cores. */
    private static Configuration small() {
        Configuration small = new Configuration();
        small.setString("parallelism.default", "1");
        small.setString("taskmanager.numberOfTaskSlots", "1");
        small.setString("taskmanager.memory.network.min", "16mb");
        small.setString("taskmanager.memory.network.max", "16mb");
        small.setString("taskmanager.memory.managed.size", "32mb");
        return small;
    }
}
